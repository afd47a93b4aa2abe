"""Raw input becomes contract events: readers, mapping files, the demo shop."""
