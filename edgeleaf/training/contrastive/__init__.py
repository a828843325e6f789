"""Teaches a model on pairs by contrast, with the techniques of KaLM-Embedding-V2 and LG-ANNA-Embedding, one a module.

Letters in the formulas: s(q, d) cosine, τ temperature, p positive, n negative, P the softmax's share of the positive.
"""
