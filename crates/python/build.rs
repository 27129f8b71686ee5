//! On macOS a linker has to be told that an extension module finds Python's symbols in the program that loads it.

fn main() {
    pyo3_build_config::add_extension_module_link_args();
}
