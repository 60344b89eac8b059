"""A folder of its own: it is on the path of the program in it, which must find nothing else."""
