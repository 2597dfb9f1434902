#!/bin/sh
# Installs the programs that some tests run and that pip cannot bring: Debian's nginx and redis-server (with apt-get, as
# root), and aimock (with npm, into .bench/programs). What cannot be installed is said, and its tests are skipped.
set -u
cd "$(dirname "$0")/../.."
here=tests/programs
PATH=$PATH:/usr/sbin:/sbin

within() { # run a command for at most so many seconds: a network that swallows packets must not hold up the tests
  if timeout --foreground 1 true 2>/dev/null; then timeout --foreground -k 10 "$@"; else shift && "$@"; fi
}

missing=""
for program in nginx redis-server; do
  command -v "$program" >/dev/null || missing="$missing $program"
done
if [ -z "$missing" ]; then
  echo "programs: nginx and redis-server are here."
elif ! command -v apt-get >/dev/null || [ "$(id -u)" != 0 ]; then
  echo "programs:$missing: not installed, since that needs root and apt-get. Their tests are skipped."
else
  echo "programs: installing$missing with apt-get ..."
  log=$(mktemp)
  rule=/usr/sbin/policy-rc.d
  if [ -e "$rule" ]; then # this machine's own rule stays
    rule=""
  else # Debian's way to say that no package may start a service
    printf '#!/bin/sh\nexit 101\n' >"$rule" && chmod 755 "$rule"
  fi
  trap 'rm -f "$log" $rule' EXIT
  trap 'exit 1' INT TERM
  export DEBIAN_FRONTEND=noninteractive
  short="-q -o Acquire::http::Timeout=20 -o Acquire::Retries=1 -o DPkg::Lock::Timeout=60"
  # shellcheck disable=SC2086
  { within 120 apt-get update $short && within 300 apt-get install -y --no-install-recommends $short $missing; } >"$log" 2>&1 </dev/null ||
    { tail -5 "$log" && echo "programs: apt-get could not install$missing. Their tests are skipped."; }
fi

home=.bench/programs
if cmp -s $here/package-lock.json $home/.installed; then
  echo "programs: aimock is here."
elif ! command -v npm >/dev/null; then
  echo "programs: aimock: not installed, since that needs node and npm. Its tests are skipped."
else
  echo "programs: installing aimock with npm into $home ..."
  mkdir -p $home && cp $here/package.json $here/package-lock.json $home/ &&
    within 120 npm ci --prefix $home --ignore-scripts --no-audit --no-fund --loglevel=error \
      --fetch-timeout=30000 --fetch-retries=1 </dev/null &&
    cp $here/package-lock.json $home/.installed || echo "programs: npm could not install aimock. Its tests are skipped."
fi
