"""What every measurement uses: settings, records, inputs, the clock, the worker's messages."""
