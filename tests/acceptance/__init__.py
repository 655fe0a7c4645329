"""The acceptance script on real processes, with less of everything."""
