//! What a name alone says: extensions and well-known names.

use std::sync::LazyLock;

use crate::config::{ARCHIVE, BINARY, DATABASE, IMAGE, LOG, MAIL, MEDIA, OFFICE, SOURCE};
use crate::types::ClassId;

/// Extensions by class, lower case, separated by white space; letter case is ignored in names.
const EXTENSIONS: &[(ClassId, &str)] = &[
    (
        SOURCE,
        "c h cc cpp cxx c++ hh hpp hxx h++ inl ipp tcc ixx cu cuh m mm rs go zig nim d v sv svh vhd
        l vhdl java kt kts scala sc groovy gradle clj cljs cljc edn cs csx vb fs fsi fsx swift
        dart py pyi pyx pxd pyw rb erb rake gemspec pl pm pod t raku php phtml php5 lua tcl tk r
        rmd rnw jl js mjs cjs jsx ts mts cts tsx vue svelte coffee elm hs lhs ml mli mll mly ex
        exs erl hrl lisp cl el scm ss rkt f f77 f90 f95 f03 f08 for ftn pas pp dpr lpr adb ads cob
        cbl asm s nasm inc y yy lex ll awk sed sh bash zsh fish ksh csh tcsh ps1 psm1 psd1 bat cmd
        vbs applescript sql psql plsql ddl html htm xhtml shtml css scss sass styl haml pug jade
        hbs mustache ejs twig liquid jinja jinja2 j2 njk xml xsd xsl xslt dtd rng wsdl svg json
        json5 jsonc jsonl ndjson jsonld jsonnet libsonnet geojson topojson webmanifest yaml yml
        toml ini cfg conf config cnf properties prefs env rc desktop service socket timer target
        mount slice network plist strings xcconfig pbxproj xib storyboard csproj vcxproj vbproj
        fsproj vcproj sln targets resx nuspec txt text md markdown mdown mkd mdx rst adoc asciidoc
        org textile wiki tex latex sty cls bib bst dtx ltx texi texinfo me ms roff csv tsv psv
        diff patch rej cmake mk mak make am ac m4 in bazel bzl bp gn gni ninja nix dhall hcl tf
        tfvars tfstate proto thrift graphql gql avsc avdl capnp fbs idl ipynb po pot xliff xlf srt
        sub vtt ass ssa vcf vcard ics ical ldif gpx kml dot gv puml plantuml mmd mermaid uml glsl
        hlsl vert frag comp geom shader cginc wgsl metal lock sum mod work map snap golden
        expected crt pem cer csr asc sig sha1 sha224 sha256 sha384 sha512 md5 sfv crc b2 ld lds
        dts dtsi kconfig asl its reg inf nfo list lst feature robot http rest stories gd tscn tres
        cson hjson prisma sol move cairo wat wast ino pde scad gcode ngc ebuild eclass spec
        pkgbuild install hook rules cron theme less eslintrc babelrc npmrc editorconfig gitignore
        gitattributes dockerignore htaccess htpasswd bashrc",
    ),
    (
        OFFICE,
        "doc docx docm dotx dotm xls xlsx xlsm xlsb xlt xltx xltm ppt pptx pptm pps ppsx ppsm potx
        potm pub vsd vsdx vsdm vst vstx mpp mpt one onetoc2 odt ods odp odg odf odc odi odm ott
        ots otp otg fodt fods fodp fodg sxw sxc sxi sxd stw pages numbers keynote key pdf ps eps
        rtf wps wpd wri hwp hwpx abw zabw gnumeric dia epub mobi azw azw3 azw4 fb2 lit lrf djvu
        djv chm xps oxps tnef xmind mmap drawio indd indt idml qxd qxp pmd fm dwg dxf dwf skp rvt
        ifc",
    ),
    (
        MAIL,
        "eml emlx mbox mbx mbs pst ost msg msf dbx nsf tbb wdseml olm mime mht mhtml oft pab wab",
    ),
    (
        MEDIA,
        "jpg jpeg jpe jfif jp2 j2k jpx jxl png apng mng gif webp bmp tif tiff heic heif hif avif
        ico cur icns psd psb ai xcf kra ora svgz cr2 cr3 crw nef nrw arw srf sr2 dng orf rw2 raf
        pef ptx srw x3f mrw erf kdc dcr mos mef iiq 3fr fff rwl gpr ppm pgm pbm pnm pam tga exr
        hdr dds ktx ktx2 pcx wmf emf dcm dicom mp3 mp2 mp1 m4a m4b m4p m4r aac adts ac3 eac3 dtshd
        flac alac ape wv tta tak shn ogg oga opus spx wma asf aif aiff aifc wav wave w64 rf64 caf
        au snd amr awb gsm ra ram mid midi kar xm s3m mpc dsf dff mka mp4 m4v mkv webm avi mov qt
        wmv mpg mpeg mpe m1v m2v mpv vob ifo bup evo mts2 m2ts tod 3gp 3g2 flv f4v swf rm rmvb ogv
        ogm divx dv mxf y4m nut bik smk blend fbx glb usdz abc c4d max mb 3ds psf sf2 sfz",
    ),
    (
        ARCHIVE,
        "zip zipx z01 7z rar r00 r01 tar tgz tbz tbz2 txz tlz tzst taz tz gz gzip bz bz2 xz lz lz4
        lzma lzo lzop z zst zstd br sz snappy zpaq arj arc lha lzh ace cab cpio shar ar2 deb udeb
        rpm apk aab ipa xapk jar war ear aar whl egg gem crate nupkg vsix xpi crx conda pkg mpkg
        xar msix appx appimage flatpak squashfs sqfs sfs cbz cbr cb7 cbt pak pk3 pk4 wad vpk woff
        woff2 kmz par par2 dar pea sit sitx hqx uue ova pack warc",
    ),
    (
        BINARY,
        "exe dll sys drv ocx scr efi msi msp msu cpl mui so a o obj lo la lib dylib bundle ko elf
        axf class pyc pyo pyd beam wasm bc dex odex oat vdex art rlib rmeta rcgu gch pch ilk pdb
        dsym dwo dwp nro nso prx xbe xex rom hex s19 srec uf2 fw ttf otf ttc pfb pfa fon gmo mo qm
        elc fasl hi cmi cmo cma cmx cmxa cmxs swiftmodule swiftdoc nib car jmod jsa node",
    ),
    (
        IMAGE,
        "qcow qcow2 qcow3 qed vmdk vdi vhdx avhd avhdx vmem vmsn vmss nvram img ima iso raw dmg
        sparseimage sparsebundle toast cdr nrg mds mdf udf wim esd swm hdd hds vfd flp dsk adf d64
        e01 ex01 aff aff4 gho tib vbk vib simg sdcard ext2 ext3 ext4 fat32 ntfs luks",
    ),
    (
        DATABASE,
        "db db2 db3 dbs sdb s3db sl3 sqlite sqlite2 sqlite3 db-wal db-shm sqlite-wal sqlite-shm
        gpkg mbtiles mdb accdb accde mde ldf ndf dbf fdb gdb ibd ibdata frm myd myi mai mad tdb
        odb fp7 fmp12 edb kdbx kdb realm lmdb mdbx bdb wt cdb rdb aof tps h2 tokumx",
    ),
    (LOG, "log logs journal evt evtx etl trc trace slog"),
];

/// Whole names by class, lower case; a dot in front says that the real name has one. A file may
/// have the dot or not: what rsync's temporary names leave does not tell.
const NAMES: &[(ClassId, &str)] = &[
    (
        SOURCE,
        "makefile gnumakefile bsdmakefile kbuild kconfig dockerfile containerfile vagrantfile
        jenkinsfile rakefile gemfile podfile fastfile appfile brewfile procfile guardfile capfile
        berksfile thorfile cartfile caddyfile justfile earthfile tiltfile snakefile sconstruct
        sconscript wscript build workspace module pkgbuild readme license licence copying
        copyright notice authors contributors maintainers credits thanks changelog changes history
        news todo install version codeowners owners manifest configure gradlew mvnw go.sum fstab
        passwd group shadow hosts hostname resolv.conf sudoers crontab exports inittab environment
        authorized_keys known_hosts id_rsa id_dsa id_ecdsa id_ed25519 .bashrc .bash_profile
        .bash_login .bash_logout .bash_history .bash_aliases .zshrc .zshenv .zprofile .zlogin
        .zsh_history .profile .cshrc .tcshrc .kshrc .inputrc .vimrc .gvimrc .viminfo .exrc .emacs
        .nanorc .screenrc .tmux.conf .wgetrc .curlrc .netrc .xinitrc .xsession .xresources
        .xdefaults .gitconfig .gitignore .gitattributes .gitmodules .gitkeep .gitmessage .mailmap
        .hgignore .hgrc .hgtags .cvsignore .svnignore .dockerignore .npmignore .npmrc .yarnrc
        .nvmrc .node-version .python-version .ruby-version .tool-versions .editorconfig .env
        .envrc .eslintrc .eslintignore .prettierrc .prettierignore .stylelintrc .babelrc
        .browserslistrc .jshintrc .clang-format .clang-tidy .clangd .rustfmt.toml .pylintrc
        .flake8 .coveragerc .pypirc .gemrc .rspec .rubocop.yml .htaccess .htpasswd .lesshst
        .python_history .mysql_history .psql_history .node_repl_history .directory .hushlogin
        .selected_editor .wget-hsts",
    ),
    (MAIL, "mbox nsmail"),
    (MEDIA, "dicomdir"),
    (ARCHIVE, "initrd initramfs"),
    (BINARY, "a.out vmlinuz vmlinux bzimage zimage uimage"),
    (IMAGE, "pagefile.sys hiberfil.sys swapfile swap.img"),
    (DATABASE, "ibdata1 ib_logfile0 ib_logfile1 ibtmp1 aria_log_control thumbs.db ntuser.dat"),
    (
        LOG,
        "syslog messages secure dmesg maillog mail.log auth.log kern.log daemon.log user.log
        lastlog wtmp btmp utmp faillog tallylog boot.log access_log error_log ssl_access_log
        ssl_error_log catalina.out nohup.out .xsession-errors npm-debug.log",
    ),
];

/// Names that may go on after `.`, `-` or `_`, as in `Dockerfile.dev` or `README-windows`.
const PREFIXES: [&str; 10] = [
    "readme",
    "license",
    "licence",
    "copying",
    "changelog",
    "changes",
    "makefile",
    "dockerfile",
    "jenkinsfile",
    "containerfile",
];

/// Extensions that say nothing of the content: the one before them does.
const WRAPPERS: [&str; 26] = [
    "backup",
    "bak",
    "bkp",
    "crdownload",
    "default",
    "disabled",
    "dist",
    "download",
    "dpkg-bak",
    "dpkg-dist",
    "dpkg-new",
    "dpkg-old",
    "example",
    "filepart",
    "new",
    "old",
    "orig",
    "part",
    "partial",
    "rpmnew",
    "rpmorig",
    "rpmsave",
    "sample",
    "save",
    "template",
    "tmp",
];

/// Longest entry of the tables above, with room.
const KEY_BYTES_MAX: usize = 32;

/// What a name matched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NameMatch {
    /// The extension, as in the table.
    Extension(&'static str),
    /// The whole name, as in the table.
    Name(&'static str),
    /// Names of mails in a maildir.
    Maildir,
}

type Key = (&'static str, ClassId);

struct Tables {
    extensions: Vec<Key>,
    /// Without the leading dot.
    names: Vec<(&'static str, ClassId, bool)>,
}

static TABLES: LazyLock<Tables> = LazyLock::new(|| {
    let words = |table: &'static [(ClassId, &'static str)]| {
        table.iter().flat_map(|(class, words)| words.split_whitespace().map(|w| (w, *class)))
    };
    let mut extensions: Vec<Key> = words(EXTENSIONS).collect();
    // Stable: of a word that stands in two classes the first one counts.
    extensions.sort_by_key(|(word, _)| *word);
    extensions.dedup_by_key(|(word, _)| *word);
    let mut names: Vec<_> = words(NAMES)
        .map(|(word, class)| match word.strip_prefix('.') {
            Some(bare) => (bare, class, true),
            None => (word, class, false),
        })
        .collect();
    names.sort_by_key(|(word, _, _)| *word);
    names.dedup_by_key(|(word, _, _)| *word);
    Tables { extensions, names }
});

/// `bytes` in lower case; `None` if they are longer than any key.
fn lower<'a>(bytes: &[u8], buffer: &'a mut [u8; KEY_BYTES_MAX]) -> Option<&'a [u8]> {
    let key = buffer.get_mut(..bytes.len())?;
    key.copy_from_slice(bytes);
    key.make_ascii_lowercase();
    Some(key)
}

fn by_extension(extension: &[u8]) -> Option<Key> {
    let mut buffer = [0; KEY_BYTES_MAX];
    let key = lower(extension, &mut buffer)?;
    let table = &TABLES.extensions;
    let at = table.binary_search_by(|(word, _)| word.as_bytes().cmp(key)).ok()?;
    Some(table[at])
}

fn by_whole_name(bare: &[u8]) -> Option<(&'static str, ClassId, bool)> {
    let mut buffer = [0; KEY_BYTES_MAX];
    let key = lower(bare, &mut buffer)?;
    let table = &TABLES.names;
    let at = table.binary_search_by(|(word, _, _)| word.as_bytes().cmp(key)).ok()?;
    Some(table[at])
}

fn is_wrapper(extension: &[u8]) -> bool {
    WRAPPERS.iter().any(|word| extension.eq_ignore_ascii_case(word.as_bytes()))
}

/// True if `extension` is one of the tables'.
pub(super) fn is_known_extension(extension: &[u8]) -> bool {
    by_extension(extension).is_some() || is_wrapper(extension)
}

/// True if `bare`, a name less its leading dot, is that of a well-known dotfile.
pub(super) fn is_known_dotfile(bare: &[u8]) -> bool {
    by_whole_name(bare).is_some_and(|(_, _, dotted)| dotted)
}

/// The class of a name by its tables and patterns.
pub(super) fn by_name(name: &[u8]) -> Option<(ClassId, NameMatch)> {
    by_tables(name).or_else(|| by_prefix(name))
}

/// The class of a name by its extension or as a whole, seen through what is put behind names:
/// backup suffixes, rotation numbers and dates.
pub(super) fn by_tables(name: &[u8]) -> Option<(ClassId, NameMatch)> {
    let mut rest = bare(name);
    if is_maildir_name(rest) {
        return Some((MAIL, NameMatch::Maildir));
    }
    loop {
        if let Some((word, class, _)) = by_whole_name(rest) {
            return Some((class, NameMatch::Name(word)));
        }
        if let Some((_, extension)) = split_extension(rest)
            && let Some((word, class)) = by_extension(extension)
        {
            return Some((class, NameMatch::Extension(word)));
        }
        rest = peel(rest)?;
    }
}

/// The class of a name by how it begins.
pub(super) fn by_prefix(name: &[u8]) -> Option<(ClassId, NameMatch)> {
    let bare = bare(name);
    let word = PREFIXES.iter().find(|word| {
        bare.len() > word.len()
            && bare[..word.len()].eq_ignore_ascii_case(word.as_bytes())
            && matches!(bare[word.len()], b'.' | b'-' | b'_')
    })?;
    Some((SOURCE, NameMatch::Name(word)))
}

/// `name` less the dots in front.
fn bare(name: &[u8]) -> &[u8] {
    &name[name.iter().take_while(|byte| **byte == b'.').count()..]
}

/// `name` before and after its last dot; `None` if there is none but in front.
fn split_extension(name: &[u8]) -> Option<(&[u8], &[u8])> {
    let at = name.iter().rposition(|byte| *byte == b'.').filter(|at| *at > 0)?;
    Some((&name[..at], &name[at + 1..]))
}

/// `name` less one thing that is put behind names and says nothing of the content.
fn peel(name: &[u8]) -> Option<&[u8]> {
    if let Some(rest) = name.strip_suffix(b"~") {
        return Some(rest);
    }
    let digits = name.iter().rev().take_while(|byte| byte.is_ascii_digit()).count();
    if let [rest @ .., b'-' | b'_'] = &name[..name.len() - digits]
        && digits >= 6
        && !rest.is_empty()
    {
        return Some(rest);
    }
    let (rest, extension) = split_extension(name)?;
    let number = !extension.is_empty() && digits == extension.len();
    (number || is_wrapper(extension)).then_some(rest)
}

/// `TIME.UNIQUE.HOST:2,FLAGS`, where UNIQUE is like `M66P9321`, `V801I3f2a` or `27351_118`.
fn is_maildir_name(name: &[u8]) -> bool {
    let digits = |bytes: &[u8]| bytes.iter().take_while(|byte| byte.is_ascii_digit()).count();
    let time = digits(name);
    if time < 9 || name.get(time) != Some(&b'.') {
        return false;
    }
    let unique = &name[time + 1..];
    match unique.first() {
        Some(b'M' | b'P' | b'V') => {
            let number = unique[1..].iter().take_while(|byte| byte.is_ascii_hexdigit()).count();
            number > 0 && matches!(unique.get(1 + number), Some(b'P' | b'V' | b'I' | b'Q' | b'M'))
        }
        Some(b'0'..=b'9') => {
            let first = digits(unique);
            unique.get(first) == Some(&b'_') && digits(&unique[first + 1..]) > 0
        }
        _ => false,
    }
}

/// Every extension and its class.
#[cfg(test)]
pub(super) fn all_extensions() -> impl Iterator<Item = Key> {
    TABLES.extensions.iter().copied()
}

/// Every whole name, with its dot if it has one, and its class.
#[cfg(test)]
pub(super) fn all_names() -> impl Iterator<Item = Key> {
    NAMES.iter().flat_map(|(class, words)| words.split_whitespace().map(|word| (word, *class)))
}

#[cfg(test)]
mod tests {
    use super::{EXTENSIONS, KEY_BYTES_MAX, NAMES, TABLES};

    #[test]
    fn keys_are_lower_case_and_fit_the_buffer() {
        for (_, words) in EXTENSIONS.iter().chain(NAMES) {
            for word in words.split_whitespace() {
                assert!(word.len() <= KEY_BYTES_MAX, "{word}");
                assert_eq!(word.to_ascii_lowercase(), word);
            }
        }
    }

    #[test]
    fn no_word_is_given_to_two_classes() {
        let count = |table: &[(_, &str)]| -> usize {
            table.iter().map(|(_, words): &(_, &str)| words.split_whitespace().count()).sum()
        };
        let mut seen = std::collections::HashMap::new();
        let mut twice = Vec::new();
        for (class, words) in EXTENSIONS {
            for word in words.split_whitespace() {
                if let Some(other) = seen.insert(word, class) {
                    twice.push(format!("{word} in {other} and {class}"));
                }
            }
        }
        assert!(twice.is_empty(), "{twice:?}");
        assert_eq!(TABLES.extensions.len(), count(EXTENSIONS));
        assert_eq!(TABLES.names.len(), count(NAMES));
    }
}
