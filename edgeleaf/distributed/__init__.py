"""More than one process: teacher vectors over Ray Data, and the processes that train one student together."""
