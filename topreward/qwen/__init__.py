"""The Qwen3-VL room: loading, pixels, layout and the passes. The only place that imports transformers."""
