"""LEAF: trains a student to give the vectors of its teacher."""
