"""The check after quantisation: how close the shipped file is to the teacher, with a verdict per gate."""
