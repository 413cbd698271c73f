"""Tables that other tools wrote: read, and turned into the `Results` that a comparison takes."""
