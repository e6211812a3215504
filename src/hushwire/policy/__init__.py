"""RFC 4301 s4.4 as data: selectors, the SPD, the SAD, the PAD, and how sure we are (DESIGN.md section 4)."""
