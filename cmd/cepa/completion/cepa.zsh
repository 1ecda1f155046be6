#compdef cepa
# zsh completion for cepa: 'cepa completion zsh' prints it. It asks the program itself what may come next.
_cepa() {
    local -a reply list
    local line
    reply=("${(@f)$(${(Q)~words[1]} complete -- "${(@Q)words[2,CURRENT]}" 2>/dev/null)}")
    case ${reply[1]} in
    files) _files ;;
    folders) _files -/ ;;
    commands) _command_names -e || _files ;;
    words)
        for line in "${(@)reply[2,-1]}"; do
            list+=("${${line%%$'\t'*}//:/\\:}:${line#*$'\t'}")
        done
        if [[ ${list[1]} == -* ]]; then
            _describe -o 'option' list
        else
            _describe 'word' list
        fi
        ;;
    esac
}
if [ "$funcstack[1]" = "_cepa" ]; then
    _cepa "$@"
else
    compdef _cepa cepa
fi
