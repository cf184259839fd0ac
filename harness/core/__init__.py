"""What everything else stands on: errors, records, files, the store, identity, interventions as data."""
