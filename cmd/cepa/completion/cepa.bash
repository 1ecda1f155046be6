# bash completion for cepa: 'cepa completion bash' prints it. It asks the program itself what may come next.
_cepa() {
    local cur=${COMP_WORDS[COMP_CWORD]} reply line
    COMPREPLY=()
    mapfile -t reply < <("${COMP_WORDS[0]}" complete -- "${COMP_WORDS[@]:1:COMP_CWORD}" 2>/dev/null)
    case ${reply[0]} in
    files) compopt -o default ;;
    folders) compopt -o dirnames ;;
    commands)
        compopt -o default
        mapfile -t COMPREPLY < <(compgen -c -- "$cur" | sort -u)
        ;;
    words)
        for line in "${reply[@]:1}"; do
            COMPREPLY+=("${line%%$'\t'*}")
        done
        ;;
    esac
}
complete -F _cepa cepa
