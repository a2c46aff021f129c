# Modules. Each is looked for afterwards: some sites' `module load` says 0 for an unknown name.
set +u  # the site's own lines read variables that are not set
if ! declare -F module >/dev/null; then
  for init in /etc/profile.d/{lmod,modules,z00_lmod}.sh; do
    [[ ! -r $init ]] || source "$init"
  done
fi
declare -F module >/dev/null ||
  stop "there is no 'module' on $HOSTNAME; where none is needed, set modules: [] in the profile"
python_before=$(command -v python3 || true)
for name in "${modules[@]}"; do
  module load "$name" || stop "module load $name failed; see: module spider $name"
  [[ :${LOADEDMODULES:-}: == *:"$name"[:/]* ]] ||
    stop "there is no module $name, or none was loaded; see: module spider $name"
done
python_loaded=$(command -v python3 || true)
set -u
if [[ $python_loaded != "$python_before" ]]; then
  loaded=$(python3 -c 'import platform; print(platform.python_version())')
  [[ ${loaded%.*} == "${python_version%.*}" ]] ||
    stop "the modules load Python $loaded, and the environment of $python was made with" \
      "$python_version. Load the module it was made with, or make it anew with this one."
fi
