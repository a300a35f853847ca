"""One thin command per DVC stage: check, call the library, record."""
