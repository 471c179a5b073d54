"""Several recipes trained on the same data and compared."""
