"""LEAF: a student is trained onto the vectors of its teacher."""
