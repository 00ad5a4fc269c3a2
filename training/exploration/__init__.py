"""Virtual prototypes of a site, searched on the batch axis: which to build, by several objectives at once."""
