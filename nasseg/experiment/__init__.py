"""One search in its run folder: begun or resumed, carried out, recorded."""
