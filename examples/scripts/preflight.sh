#!/usr/bin/env bash
# Is everything here that the release needs?
set -euo pipefail

for tool in python3 tar aws; do
  printf '%-8s' "$tool"
  command -v "$tool" || { echo "not found" >&2; exit 1; }
done
rm -rf "$RELEASE_DIR"
mkdir -p "$RELEASE_DIR"
echo "releasing version $VERSION from $(pwd)"
