//! Environment variables by which a request could have an image's command run something else.
//!
//! Invariant: the command of a program of this machine is the server owner's word on what runs; no variable here gets past
//! it. They stand in families, each with its reason. The list is of what is known: an owner who trusts no request at all
//! runs containers, where no variable matters, since all their code is the image's own.

/// Variables with one reason.
struct Family {
    /// What they name.
    why: &'static str,
    names: &'static [&'static str],
    prefixes: &'static [&'static str],
}

const FAMILIES: &[Family] = &[
    Family {
        why: "the dynamic linker and the C library take libraries, hooks and tables from it",
        names: &[
            "GCONV_PATH",
            "GETCONF_DIR",
            "HOSTALIASES",
            "LOCALDOMAIN",
            "LOCPATH",
            "NLSPATH",
            "RES_OPTIONS",
            "TERMCAP",
            "TERMINFO",
            "TERMINFO_DIRS",
            "TZDIR",
        ],
        prefixes: &["DYLD_", "GLIBC_", "LD_", "MALLOC_"],
    },
    Family {
        why: "shells look for programs, start-up files and code in it",
        names: &[
            "BASHOPTS",
            "CDPATH",
            "ENV",
            "FPATH",
            "IFS",
            "PATH",
            "PROMPT_COMMAND",
            "PS0",
            "PS1",
            "PS2",
            "PS3",
            "PS4",
            "SHELL",
            "SHELLOPTS",
            "ZDOTDIR",
        ],
        prefixes: &["BASH_"],
    },
    Family {
        why: "programs look for their configuration, and for code named in it, beneath it",
        names: &["CURL_HOME", "DOCKER_CONFIG", "HOME", "KUBECONFIG", "WGETRC"],
        prefixes: &["XDG_CONFIG_", "XDG_DATA_"],
    },
    Family {
        why: "programs start the program that it names",
        names: &[
            "AWS_CONFIG_FILE",
            "AWS_SHARED_CREDENTIALS_FILE",
            "BROWSER",
            "EDITOR",
            "GOOGLE_EXTERNAL_ACCOUNT_ALLOW_EXECUTABLES",
            "LESSCLOSE",
            "LESSOPEN",
            "MANPAGER",
            "PAGER",
            "RSYNC_RSH",
            "SSH_ASKPASS",
            "SUDO_ASKPASS",
            "VISUAL",
        ],
        prefixes: &["GIT_"],
    },
    Family {
        why: "an interpreter takes options, modules or start-up files from it",
        names: &["PHPRC", "PHP_INI_SCAN_DIR", "PYSPARK_PYTHON", "PYSPARK_DRIVER_PYTHON", "TCLLIBPATH"],
        prefixes: &[
            "BUNDLE_", "ERL_", "GEM_", "GUILE_", "JULIA_", "LUA_", "NODE_", "NPM_", "PERL", "PYTHON", "RUBY", "R_",
            "npm_",
        ],
    },
    Family {
        why: "package managers install code from where it says",
        names: &[],
        prefixes: &["CONDA_", "PIP_", "UV_"],
    },
    Family {
        why: "the Java virtual machine takes classes, agents and options from it",
        names: &["CLASSPATH", "JRE_HOME", "_JAVA_OPTIONS"],
        prefixes: &["HADOOP_", "JAVA_", "JDK_", "SPARK_"],
    },
    Family {
        why: "the .NET runtime loads start-up hooks and profilers from it",
        names: &[],
        prefixes: &["COMPlus_", "CORECLR_", "COR_", "DOTNET_"],
    },
    Family {
        why: "compilers that libraries call at run time take programs, options and built code from it",
        names: &[
            "AR",
            "CC",
            "CFLAGS",
            "CPATH",
            "CPP",
            "CPPFLAGS",
            "CUDACXX",
            "CUDA_CACHE_PATH",
            "CUDA_HOME",
            "CUDA_PATH",
            "CXX",
            "CXXFLAGS",
            "C_INCLUDE_PATH",
            "CPLUS_INCLUDE_PATH",
            "LD",
            "LDFLAGS",
            "LIBRARY_PATH",
            "MAKEFLAGS",
            "NUMBA_CACHE_DIR",
            "NVCC_APPEND_FLAGS",
            "NVCC_PREPEND_FLAGS",
            "PKG_CONFIG_PATH",
            "TORCH_EXTENSIONS_DIR",
            "TORCH_HOME",
            "XLA_FLAGS",
        ],
        prefixes: &["HIPCC_", "TORCHINDUCTOR_", "TRITON_"],
    },
    Family {
        why: "graphics and compute drivers load tools and layers that it names",
        names: &[
            "CUDA_INJECTION32_PATH",
            "CUDA_INJECTION64_PATH",
            "GBM_BACKENDS_PATH",
            "HSA_TOOLS_LIB",
            "KOKKOS_PROFILE_LIBRARY",
            "KOKKOS_TOOLS_LIBS",
            "LIBGL_DRIVERS_PATH",
            "LIBVA_DRIVERS_PATH",
            "NVTX_INJECTION32_PATH",
            "NVTX_INJECTION64_PATH",
            "OCL_ICD_FILENAMES",
            "OCL_ICD_VENDORS",
            "OMP_TOOL_LIBRARIES",
            "OPENCL_VENDOR_PATH",
            "ROCP_TOOL_LIB",
            "VDPAU_DRIVER_PATH",
            "ZE_ENABLE_ALT_DRIVERS",
        ],
        prefixes: &["ROCPROFILER_", "VK_", "__EGL_", "__GLX_"],
    },
    Family {
        why: "communication libraries load plug-ins and read files that it names",
        names: &[
            "FI_PROVIDER_PATH",
            "NCCL_CONF_FILE",
            "NCCL_ENV_PLUGIN",
            "NCCL_GIN_PLUGIN",
            "NCCL_NET_PLUGIN",
            "NCCL_PROFILER_PLUGIN",
            "NCCL_TUNER_PLUGIN",
            "RCCL_NET_PLUGIN",
            "RCCL_TUNER_PLUGIN",
            "UCX_MODULE_DIR",
        ],
        prefixes: &["I_MPI_", "OMPI_", "OPAL_", "PMIX_", "PRTE_", "UCC_"],
    },
    Family {
        why: "libraries load the plug-ins, engines or drivers that it names",
        names: &[
            "GDAL_DRIVER_PATH",
            "GIO_EXTRA_MODULES",
            "GSS_MECH_CONFIG",
            "GTK_MODULES",
            "HDF5_PLUGIN_PATH",
            "HDF5_VOL_CONNECTOR",
            "KRB5_CONFIG",
            "ODBCINI",
            "ODBCSYSINI",
            "OPENSSL_CONF",
            "OPENSSL_ENGINES",
            "OPENSSL_MODULES",
            "QT_PLUGIN_PATH",
            "SASL_PATH",
        ],
        prefixes: &["GST_PLUGIN_"],
    },
];

/// Members of those families that change no code.
const HARMLESS: &[&str] = &[
    "DOTNET_CLI_TELEMETRY_OPTOUT",
    "GIT_PYTHON_REFRESH",
    "JULIA_NUM_THREADS",
    "MALLOC_ARENA_MAX",
    "NODE_ENV",
    "PYTHONHASHSEED",
    "PYTHONIOENCODING",
    "PYTHONUNBUFFERED",
    "PYTHONUTF8",
];

/// Why a variable of this name is one of them; none where it is not.
pub(super) fn reason(name: &str) -> Option<&'static str> {
    if HARMLESS.contains(&name) {
        return None;
    }
    let of = |family: &&Family| {
        family.names.contains(&name) || family.prefixes.iter().any(|prefix| name.starts_with(prefix))
    };
    FAMILIES.iter().find(of).map(|family| family.why)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_loads_code_is_told_from_what_tunes_a_library() {
        for name in [
            "COMPlus_EnableDiagnostics",
            "CORECLR_PROFILER_PATH",
            "CUDA_INJECTION64_PATH",
            "DOTNET_STARTUP_HOOKS",
            "LD_PRELOAD",
            "NCCL_NET_PLUGIN",
            "NCCL_TUNER_PLUGIN",
            "OMPI_MCA_mca_base_component_path",
            "PIP_INDEX_URL",
            "TORCH_HOME",
            "TRITON_CACHE_DIR",
            "VK_LAYER_PATH",
            "XDG_CONFIG_HOME",
        ] {
            assert!(reason(name).is_some(), "{name}");
        }
        for name in [
            "AWS_REGION",
            "CUDA_VISIBLE_DEVICES",
            "DOTNET_CLI_TELEMETRY_OPTOUT",
            "KERAS_BACKEND",
            "NCCL_DEBUG",
            "NCCL_SOCKET_IFNAME",
            "OMP_NUM_THREADS",
            "TF_CPP_MIN_LOG_LEVEL",
            "UCX_TLS",
        ] {
            assert_eq!(reason(name), None, "{name}");
        }
    }

    #[test]
    fn no_name_stands_twice() {
        let mut names: Vec<&str> = FAMILIES.iter().flat_map(|family| family.names).copied().collect();
        let all = names.len();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), all);
        let covered = |name: &&str| FAMILIES.iter().flat_map(|f| f.prefixes).any(|prefix| name.starts_with(prefix));
        assert_eq!(names.into_iter().find(covered), None, "a prefix has it");
    }
}
