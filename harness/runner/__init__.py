"""The stages of a run, each restartable from the files of the one before."""
