"""Documents as pages: HTML, Markdown, SVG."""
