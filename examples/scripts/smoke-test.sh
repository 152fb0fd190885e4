#!/usr/bin/env bash
# Does the archive hold what was put in?
set -euo pipefail

archive="$RELEASE_DIR/examples-$VERSION.tar.gz"
tar -tzf "$archive" | tee "$RELEASE_DIR/contents.txt"
grep -q 'release.yaml$' "$RELEASE_DIR/contents.txt"
echo "version $VERSION is good: $(wc -c < "$archive") bytes"
