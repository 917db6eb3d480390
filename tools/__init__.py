"""What makes the project's own pages, pictures and distributions; not part of the program."""
