"""Data that ships with the package: the flights that the demo streams, and the tables it joins."""
