"""The check after quantisation: how close the file that ships is to the teacher, with a verdict on each gate."""
