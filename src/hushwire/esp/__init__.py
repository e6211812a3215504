"""ESP in userspace, without I/O: packets in, packets and reports out (RFC 4303, 3948, 4106, 7634).

`transform`  one SA's cipher: seals and opens a frame in place
`replay`     the receiver's window, and the high half of an extended sequence number
`sad`        the state of one SA: cipher, window, what it has carried against its lifetime
`spd`        the policies of one direction, looked up by flow
`packet`     the inner IP packet: its flow, and the header that transport mode takes off and puts on again
`reassembly` outbound fragments to whole packets
`hold`       packets that wait for an SA, and the Acquire each flow gets
`plane`      Plane: all of it behind the two planes' one contract
`batch`      the same for bursts: segments sealed side by side, TCP coalesced for one write
"""
