"""The command line: compose, check, freeze, run the stages."""
