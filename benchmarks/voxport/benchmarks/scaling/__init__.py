"""How cost grows with length, batch, speakers and voices."""
