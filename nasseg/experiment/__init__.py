"""A search in its run folder: begun or resumed, run and recorded."""
