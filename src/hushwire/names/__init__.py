"""DNS without I/O: host names, key records, and the proof that key, name and address belong together (RFC 4025).

`name`      text -> the one canonical form of a host name
`ipseckey`  RDATA <-> KeyRecord
`tlsa`      RDATA <-> a key's fingerprint
`binding`   validated answers about a name -> Binding, or Unbound saying why not
`reverse`   the same of an address, by its reverse zone
`lookup`    a name or an address kept up to date: asks, re-asks, and tells what changed
"""
