"""Asks a store from LangChain: ``python docs/tutorial/ask.py "QUESTION"``."""

from __future__ import annotations

import sys

from edgeleaf.integrations.langchain import EdgeleafRetriever

retriever = EdgeleafRetriever(bundle="export/models/mpnet", store="sqlite:///notes.db", k=3)
for document in retriever.invoke(sys.argv[1]):
    print(f"{document.metadata['score']:.3f}  {document.id}")
