"""Teachers behind an HTTP endpoint that speaks OpenAI's, Cohere's or text-embeddings-inference's embeddings API."""
