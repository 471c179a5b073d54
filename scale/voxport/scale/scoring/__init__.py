"""Bulk scoring: a corpus of any size in, one row of Parquet per utterance out, by many processes."""
