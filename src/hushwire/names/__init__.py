"""DNS without I/O: host names, key records, and the proof that key, name and address belong together (RFC 4025).

`name`      text -> the one canonical form of a host name
`ipseckey`  RDATA <-> KeyRecord
`binding`   three validated answers -> Binding, or Unbound saying why not
`lookup`    a name kept up to date: asks, re-asks, and tells what changed
"""
