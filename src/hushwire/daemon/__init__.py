"""The processes: parent, guard, keeper, node worker, plane worker, resolver (DESIGN.md section 3)."""
