# The warnings that every target of ours is clean under. They are private: nobody who links Penstock
# inherits them.

function(penstock_warnings target)
    target_compile_options(${target} PRIVATE -Wall -Wextra -Wpedantic -Wconversion -Wshadow)
    if(PENSTOCK_WERROR)
        target_compile_options(${target} PRIVATE -Werror)
    endif()
endfunction()
