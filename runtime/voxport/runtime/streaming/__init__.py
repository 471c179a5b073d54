"""Long and live sound: windows, scores over time, segments and turns."""
