"""The end of a search: its clock, the end-to-end runs, and who wins."""
