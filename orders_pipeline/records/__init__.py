"""Record types: a catalogue of columns and rules for each kind of record, and what catalogues are made of."""
