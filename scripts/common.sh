# shellcheck shell=bash
# Sourced by the other scripts.
say() { printf '%s\n' "$*" >&2; }
die() { say "error: $*"; exit 1; }

# apt_install PACKAGE...: install Debian packages as root or by sudo, saying so.
apt_install() {
  local as_root=()
  if [ "$(id -u)" -ne 0 ]; then
    command -v sudo >/dev/null && sudo -n true 2>/dev/null ||
      die "these Debian packages are missing: $* - install them: apt-get install $*"
    as_root=(sudo)
  fi
  command -v apt-get >/dev/null || die "these Debian packages are missing: $*"
  say "Installing Debian packages: $*"
  "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get update -qq >&2
  "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive \
    apt-get install -qq -y --no-install-recommends "$@" >/dev/null
}
