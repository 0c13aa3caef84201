.PHONY: test lint fmt quickstart bench

test:
	pytest -n 2

lint:
	ruff check .
	ruff format --check .
	mypy

fmt:
	ruff check --fix .
	ruff format .

quickstart:
	tlbench train experiment=quickstart

bench:
	python benchmarks/frozen_head.py
	python benchmarks/full_training.py
	python benchmarks/overhead.py
