# fish completion for cepa: 'cepa completion fish' prints it. It asks the program itself what may come next.
function __cepa_complete
    set -l words (commandline -opc) (commandline -ct)
    set -l reply (command $words[1] complete -- $words[2..-1] 2>/dev/null)
    switch "$reply[1]"
        case files
            __fish_complete_path (commandline -ct)
        case folders
            __fish_complete_directories (commandline -ct)
        case commands
            __fish_complete_path (commandline -ct)
            complete -C (commandline -ct)
        case words
            printf '%s\n' $reply[2..-1]
    end
end
complete -c cepa -f -a '(__cepa_complete)'
