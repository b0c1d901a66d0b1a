"""Who is in memory."""
