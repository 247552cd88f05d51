"""A plan or a result to look at: contact sheets, pages and clips."""
