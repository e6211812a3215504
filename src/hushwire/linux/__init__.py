"""The only code that knows Linux: netlink, XFRM, routes, sockets, TUN, the sandbox.  Calls and codecs, no decisions."""
