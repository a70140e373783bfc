//! What people do at shells, and which commands that is.

use sessiond::terminal::frame::Size;

use super::pty::Pty;

pub struct Scene {
    pub name: &'static str,
    pub shells: &'static [&'static str],
    pub act: fn(&mut Pty, &str),
    /// The commands that were entered.
    pub commands: &'static [&'static str],
    /// What may not be in the recorded input.
    pub hidden: &'static [&'static str],
    /// What has to be in it.
    pub shown: &'static [&'static str],
}

pub const SIZE: Size = Size { cols: 60, rows: 12 };

/// How a shell is started, and what its prompt ends with.
pub fn shell(name: &str) -> (&'static [&'static str], &'static str) {
    match name {
        "bash" => (&["bash", "--norc", "--noprofile", "-i"], "# "),
        "old-bash" => (&["bash", "--norc", "--noprofile", "-i"], "# "),
        "zsh" => (&["zsh", "-f", "-i"], "# "),
        "fish" => (&["fish", "-i", "-C", FISH], "# "),
        _ => (&["dash", "-i"], "# "),
    }
}

/// A prompt like the others'.
const FISH: &str =
    "function fish_prompt; echo -n '# '; end; function fish_right_prompt; end; set fish_greeting";

/// Readline and zle.
const EDITORS: &[&str] = &["bash", "old-bash", "zsh"];
const ALL: &[&str] = &["bash", "old-bash", "zsh", "dash"];

/// A line, and then the next prompt.
fn line(pty: &mut Pty, prompt: &str, text: &str) {
    pty.types(&format!("{text}\r"));
    pty.until(prompt);
}

/// Key by key, as people type.
fn slowly(pty: &mut Pty, text: &str) {
    for c in text.chars() {
        pty.types(&c.to_string());
        pty.until_there_is(&c.to_string());
    }
}

pub const SCENES: &[Scene] = &[
    Scene {
        name: "plain",
        shells: ALL,
        act: |pty, prompt| {
            slowly(pty, "echo one");
            line(pty, prompt, "");
            line(pty, prompt, "cd /tmp");
            line(pty, prompt, "");
            line(pty, prompt, "  echo  'two  three' ");
            line(pty, prompt, "echo grüße 日本");
            line(pty, prompt, "printf 'no newline'");
            line(pty, prompt, "echo next");
            line(pty, prompt, "#");
        },
        commands: &[
            "echo one",
            "cd /tmp",
            "echo  'two  three'",
            "echo grüße 日本",
            "printf 'no newline'",
            "echo next",
            "#",
        ],
        hidden: &[],
        shown: &["echo one\r", "cd /tmp\r", "日本", "echo next\r"],
    },
    Scene {
        name: "erasing",
        shells: ALL,
        act: |pty, prompt| {
            line(pty, prompt, "echo onx\x7fe");
            line(pty, prompt, "rubbish\x15echo two");
            line(pty, prompt, "echo three four\x17five");
            slowly(pty, "echo siy");
            pty.types("\x7f");
            pty.until_there_is("\x08");
            line(pty, prompt, "x");
        },
        commands: &["echo one", "echo two", "echo three five", "echo six"],
        hidden: &[],
        shown: &["echo onx\x7fe\r"],
    },
    Scene {
        name: "editing",
        shells: EDITORS,
        act: |pty, prompt| {
            slowly(pty, "cho one");
            pty.types("\x01");
            pty.until_there_is("\x08");
            line(pty, prompt, "e");
            slowly(pty, "echo two");
            pty.types("\x1b[D\x1b[D\x1b[D");
            pty.until_there_is("\x08\x08\x08");
            line(pty, prompt, "X");
            line(pty, prompt, "echo three\x01\x0becho four\x05 five");
            line(pty, prompt, "echo six seven\x1b[D\x1b[D\x1b[D\x1b[D\x1b[D\x0b");
        },
        commands: &["echo one", "echo Xtwo", "echo four five", "echo six"],
        hidden: &[],
        shown: &["\x1b[D\x1b[D\x1b[D", "X\r"],
    },
    Scene {
        name: "history",
        shells: EDITORS,
        act: |pty, prompt| {
            line(pty, prompt, "echo first");
            line(pty, prompt, "echo second one");
            pty.types("\x1b[A\x1b[A");
            pty.until_line("echo first");
            line(pty, prompt, "");
            pty.types("\x12");
            pty.until_there_is("search");
            pty.types("sec");
            pty.until_line("echo second one");
            line(pty, prompt, "");
            line(pty, prompt, "\x1b[A\x7f\x7f\x7ftwo");
            line(pty, prompt, "\x10\x10\x0e");
        },
        commands: &[
            "echo first",
            "echo second one",
            "echo first",
            "echo second one",
            "echo second two",
            "echo second two",
        ],
        hidden: &[],
        shown: &["\x1b[A\x1b[A"],
    },
    Scene {
        name: "completion",
        shells: &["bash", "old-bash"],
        act: |pty, prompt| {
            line(pty, prompt, "touch alpha_one alpha_two beta");
            pty.types("ls be\t");
            pty.until_line("beta");
            line(pty, prompt, "");
            pty.types("ls al\t");
            pty.until_line("alpha_");
            // A list below, and the line again below that.
            pty.types("\t\t");
            pty.until_there_is("alpha_two");
            pty.until_line("ls alpha_");
            pty.types("tw\t");
            pty.until_line("ls alpha_two");
            line(pty, prompt, "");
            line(pty, prompt, "echo done");
        },
        commands: &["touch alpha_one alpha_two beta", "ls beta", "ls alpha_two", "echo done"],
        hidden: &[],
        shown: &["ls be\t"],
    },
    Scene {
        name: "menu",
        shells: &["zsh"],
        act: |pty, prompt| {
            line(pty, prompt, "touch alpha_one alpha_two beta");
            pty.types("ls be\t");
            pty.until_line("beta");
            line(pty, prompt, "");
            pty.types("ls al\t");
            pty.until_line("alpha_");
            // A list below, and the cursor up again.
            pty.types("\t");
            pty.until_there_is("alpha_two");
            pty.types("\t\t");
            pty.until_line("ls alpha_two");
            line(pty, prompt, "");
            line(pty, prompt, "echo done");
        },
        commands: &["touch alpha_one alpha_two beta", "ls beta", "ls alpha_two", "echo done"],
        hidden: &[],
        shown: &["ls be\t"],
    },
    Scene {
        name: "long",
        shells: EDITORS,
        act: |pty, prompt| {
            let long = "echo 0123456789 0123456789 0123456789 0123456789 0123456789 0123456789 0123456789 0123456789 end";
            line(pty, prompt, long);
            pty.types("\x1b[A");
            pty.until_line("end");
            line(pty, prompt, " again");
            pty.types("\x1b[A");
            pty.until_line("again");
            pty.types("\x01\x1b[C\x1b[C\x1b[C\x1b[C");
            line(pty, prompt, " -n");
            // Exactly as wide as the screen.
            let exact = format!("echo {}", "x".repeat(200));
            for width in [50, 51, 52, 53, 54, 55, 56, 57, 58, 59, 60, 61] {
                line(pty, prompt, &exact[..width]);
            }
        },
        commands: &[
            "echo 0123456789 0123456789 0123456789 0123456789 0123456789 0123456789 0123456789 0123456789 end",
            "echo 0123456789 0123456789 0123456789 0123456789 0123456789 0123456789 0123456789 0123456789 end again",
            "echo -n 0123456789 0123456789 0123456789 0123456789 0123456789 0123456789 0123456789 0123456789 end again",
            "echo xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx",
            "echo xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx",
            "echo xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx",
            "echo xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx",
            "echo xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx",
            "echo xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx",
            "echo xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx",
            "echo xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx",
            "echo xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx",
            "echo xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx",
            "echo xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx",
            "echo xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx",
        ],
        hidden: &[],
        shown: &[" again\r"],
    },
    Scene {
        name: "ahead",
        shells: ALL,
        act: |pty, _| {
            pty.types("echo one\recho two\r");
            pty.until_result("two");
            pty.types("sleep 0.3\r");
            pty.until("sleep 0.3\n");
            pty.types("echo three\recho four\r");
            pty.until_result("four");
            pty.types("echo five;sleep 0.2\rcd /\recho six\r");
            pty.until_result("six");
            pty.types("echo seven\r");
            pty.until_result("seven");
        },
        commands: &[
            "echo one",
            "echo two",
            "sleep 0.3",
            "echo three",
            "echo four",
            "echo five;sleep 0.2",
            "cd /",
            "echo six",
            "echo seven",
        ],
        hidden: &[],
        shown: &["echo one\r", "sleep 0.3\r", "echo seven\r"],
    },
    Scene {
        name: "paste",
        shells: &["bash", "zsh"],
        act: |pty, prompt| {
            pty.types("\x1b[200~echo one\recho two\recho three\x1b[201~");
            pty.until_there_is("echo three");
            pty.types("\r");
            pty.until_there_is("three\n");
            pty.until(prompt);
            pty.types("\x1b[200~for i in 1 2; do\r  echo \"$i\"\rdone\x1b[201~");
            pty.until_there_is("done");
            pty.types("\r");
            pty.until_there_is("2\n");
            pty.until(prompt);
            line(pty, prompt, "echo \x1b[200~pasted\x1b[201~");
        },
        commands: &["echo one\necho two\necho three", "for i in 1 2; do\n  echo \"$i\"\ndone", "echo pasted"],
        hidden: &[],
        shown: &["\x1b[200~echo one\recho two\recho three\x1b[201~\r"],
    },
    Scene {
        name: "passwords",
        shells: ALL,
        act: |pty, prompt| {
            let ask = "bash -c 'read -rsp \"Password: \" x; echo; echo \"${#x} chars\"'";
            pty.types(&format!("{ask}\r"));
            pty.until("Password: ");
            slowly_unseen(pty, "sesame");
            pty.types("\r");
            pty.until(prompt);
            line(pty, prompt, "echo between");
            // Nothing new on the line after it.
            pty.types("bash -c 'read -rsp \"PIN: \" x; echo checking 1234...'\r");
            pty.until("PIN: ");
            pty.types("1234\r");
            pty.until(prompt);
            // Stars.
            pty.types("bash -c 'printf \"Secret: \"; while IFS= read -rsn1 c && [ \"$c\" ]; do printf \"*\"; done; echo'\r");
            pty.until("Secret: ");
            pty.types("hunter2\r");
            pty.until_there_is("*******\n");
            pty.until(prompt);
            line(pty, prompt, "echo after");
        },
        commands: &[
            "bash -c 'read -rsp \"Password: \" x; echo; echo \"${#x} chars\"'",
            "echo between",
            "bash -c 'read -rsp \"PIN: \" x; echo checking 1234...'",
            "bash -c 'printf \"Secret: \"; while IFS= read -rsn1 c && [ \"$c\" ]; do printf \"*\"; done; echo'",
            "echo after",
        ],
        hidden: &["sesame", "sesa", "hunter", "1234\r"],
        shown: &["echo between\r", "echo after\r"],
    },
    Scene {
        name: "password-ahead",
        shells: &["bash", "old-bash"],
        act: |pty, prompt| {
            pty.types("bash -c 'read -rsp \"Password: \" x; echo; echo \"${#x} chars\"'\rsesame\n");
            pty.until_there_is("6 chars\n");
            pty.until(prompt);
            line(pty, prompt, "echo after");
        },
        commands: &["bash -c 'read -rsp \"Password: \" x; echo; echo \"${#x} chars\"'", "echo after"],
        hidden: &["sesame", "ses"],
        shown: &["echo after\r"],
    },
    Scene {
        name: "programs",
        shells: ALL,
        act: |pty, prompt| {
            pty.types("cat -n\r");
            pty.until("cat -n\n");
            pty.types("hello\r");
            pty.until_there_is("1\thello\n");
            pty.types("two words\r");
            pty.until_there_is("2\ttwo words\n");
            pty.types("\x04");
            pty.until(prompt);
            line(pty, prompt, "echo back");
            pty.types("cat\r");
            pty.until("cat\n");
            pty.types("more\r");
            pty.until_there_is("more\nmore\n");
            pty.types("\x03");
            pty.until(prompt);
            line(pty, prompt, "");
            line(pty, prompt, "true");
        },
        commands: &["cat -n", "echo back", "cat", "true"],
        hidden: &[],
        shown: &["hello\r", "two words\r"],
    },
    Scene {
        name: "cancelled",
        shells: ALL,
        act: |pty, prompt| {
            pty.types("echo never");
            pty.until_there_is("never");
            pty.types("\x03");
            pty.until(prompt);
            line(pty, prompt, "echo one");
            pty.types("sleep 30\r");
            pty.until("sleep 30\n");
            pty.types("rm -rf nothing\r");
            pty.until_there_is("nothing");
            pty.types("\x03");
            pty.until(prompt);
            line(pty, prompt, "echo two");
        },
        commands: &["echo one", "sleep 30", "echo two"],
        hidden: &[],
        shown: &[],
    },
    Scene {
        name: "full-screen",
        shells: ALL,
        act: |pty, prompt| {
            line(pty, prompt, "seq 1 100 > numbers");
            pty.types("less numbers\r");
            pty.until_there_is("11\n");
            pty.types(" ");
            pty.until_there_is("22");
            pty.types("/77\r");
            pty.until_there_is("77");
            pty.types("q");
            pty.until(prompt);
            line(pty, prompt, "echo between");
            pty.types("vim -u NONE numbers\r");
            pty.until_there_is("10");
            pty.types("ddiinserted $ ls\x1b");
            pty.until_there_is("ls");
            pty.types(":q!\r");
            pty.until(prompt);
            line(pty, prompt, "echo after");
        },
        commands: &[
            "seq 1 100 > numbers",
            "less numbers",
            "echo between",
            "vim -u NONE numbers",
            "echo after",
        ],
        hidden: &[],
        shown: &["echo between\r", "echo after\r"],
    },
    Scene {
        name: "cleared",
        shells: EDITORS,
        act: |pty, prompt| {
            line(pty, prompt, "seq 1 30");
            pty.types("echo ha");
            pty.until_there_is("ha");
            pty.types("\x0c");
            pty.until_line("echo ha");
            line(pty, prompt, "lf");
            pty.types("echo wh");
            pty.until_there_is("wh");
            pty.types("\x0c\x01");
            pty.until_line("echo wh");
            pty.types("\x05");
            line(pty, prompt, "ole");
            line(pty, prompt, "clear");
            line(pty, prompt, "echo last");
        },
        commands: &["seq 1 30", "echo half", "echo whole", "clear", "echo last"],
        hidden: &[],
        shown: &["echo last\r"],
    },
    Scene {
        name: "lines",
        shells: ALL,
        act: |pty, prompt| {
            pty.types("cat <<END\r");
            pty.until("> ");
            pty.types("some text\r");
            pty.until("> ");
            pty.types("END\r");
            pty.until_there_is("some text\n");
            pty.until(prompt);
            pty.types("if true\r");
            pty.until("> ");
            pty.types("then echo yes; fi\r");
            pty.until_there_is("yes\n");
            pty.until(prompt);
            pty.types("echo a \\\r");
            pty.until("> ");
            pty.types("b\r");
            pty.until_there_is("a b\n");
            pty.until(prompt);
        },
        commands: &["cat <<END", "some text", "END", "if true", "then echo yes; fi", "echo a \\", "b"],
        hidden: &[],
        shown: &["some text\r"],
    },
    Scene {
        name: "nested",
        shells: ALL,
        act: |pty, prompt| {
            line(pty, prompt, "bash --norc --noprofile");
            pty.types("ls -d /et\t");
            pty.until_line("/etc/");
            line(pty, prompt, "");
            line(pty, prompt, "exit");
            pty.types("python3 -qic \"import sys; sys.ps1 = '>>> '\"\r");
            pty.until(">>> ");
            pty.types("6 * 7\r");
            pty.until("42\n>>> ");
            pty.types("exit()\r");
            pty.until(prompt);
            line(pty, prompt, "echo out");
        },
        commands: &[
            "bash --norc --noprofile",
            "ls -d /etc/",
            "exit",
            "python3 -qic \"import sys; sys.ps1 = '>>> '\"",
            "6 * 7",
            "exit()",
            "echo out",
        ],
        hidden: &[],
        shown: &["6 * 7\r"],
    },
    Scene {
        name: "resized",
        shells: EDITORS,
        act: |pty, prompt| {
            pty.types("echo one");
            pty.until_there_is("one");
            pty.resizes(Size { cols: 40, rows: 20 });
            pty.types(" two");
            pty.until_there_is("two");
            line(pty, prompt, "");
            pty.resizes(Size { cols: 100, rows: 8 });
            line(pty, prompt, "seq 1 40");
            line(pty, prompt, "echo a longer line after it, that would not have had room on one line before");
            line(pty, prompt, "stty size");
        },
        commands: &[
            "echo one two",
            "seq 1 40",
            "echo a longer line after it, that would not have had room on one line before",
            "stty size",
        ],
        hidden: &[],
        shown: &[],
    },
    Scene {
        name: "background",
        shells: ALL,
        act: |pty, prompt| {
            pty.types("(sleep 0.2; echo noise) &\r");
            pty.until(prompt);
            pty.types("echo ty");
            pty.until_there_is("noise\n");
            pty.types("ping\r");
            pty.until_there_is("typing\n");
            pty.until(prompt);
            line(pty, prompt, "wait");
            line(pty, prompt, "echo done");
        },
        commands: &["(sleep 0.2; echo noise) &", "echo typing", "wait", "echo done"],
        hidden: &[],
        shown: &["echo done\r"],
    },
    Scene {
        name: "single-keys",
        shells: ALL,
        act: |pty, prompt| {
            line(pty, prompt, "seq 1 200 > n");
            // On the main screen, as git and others start it.
            pty.types("LESS=FRX less n\r");
            pty.until_there_is("11");
            pty.types("q");
            pty.until(prompt);
            line(pty, prompt, "rm -f nothing");
            pty.types("top\r");
            pty.until_there_is("PID");
            pty.types("q");
            pty.until(prompt);
            line(pty, prompt, "echo after top");
            line(pty, prompt, "git init -q .");
            line(pty, prompt, "git -c user.name=a -c user.email=a@b commit -q --allow-empty -F n");
            pty.types("git log\r");
            pty.until_there_is("Author");
            pty.types("q");
            pty.until(prompt);
            line(pty, prompt, "echo after log");
            pty.types("more n\r");
            pty.until_there_is("--More--");
            pty.types("q");
            pty.until(prompt);
            line(pty, prompt, "echo after more");
            pty.types("bash -c 'echo press; read -n1 -s x'\r");
            pty.until("press\n");
            slowly_unseen(pty, "k");
            pty.until(prompt);
            line(pty, prompt, "echo after read");
            pty.types("cat\r");
            pty.until("cat\n");
            pty.types("half");
            pty.until_there_is("half");
            pty.types("\x04");
            pty.until_there_is("half");
            pty.types("\x04");
            pty.until(prompt);
            line(pty, prompt, "echo after cat");
            pty.types("bash -c 'read -n1 -p \"Sure? [y/N] \" x'\r");
            pty.until("[y/N] ");
            pty.types("y");
            pty.until(prompt);
            line(pty, prompt, "echo x");
            pty.types("top\r");
            pty.until_there_is("PID");
            pty.types("k");
            pty.until_there_is("PID to ");
            slowly_unseen(pty, "\x1b");
            std::thread::sleep(std::time::Duration::from_millis(500));
            pty.types("q");
            pty.until(prompt);
            line(pty, prompt, "echo last");
        },
        commands: &[
            "seq 1 200 > n",
            "LESS=FRX less n",
            "rm -f nothing",
            "top",
            "echo after top",
            "git init -q .",
            "git -c user.name=a -c user.email=a@b commit -q --allow-empty -F n",
            "git log",
            "echo after log",
            "more n",
            "echo after more",
            "bash -c 'echo press; read -n1 -s x'",
            "echo after read",
            "cat",
            "echo after cat",
            "bash -c 'read -n1 -p \"Sure? [y/N] \" x'",
            "echo x",
            "top",
            "echo last",
        ],
        hidden: &[],
        shown: &["rm -f nothing\r", "echo after top\r", "echo x\r", "echo last\r"],
    },
    Scene {
        name: "fish",
        shells: &["fish"],
        act: |pty, prompt| {
            slowly(pty, "echo one");
            line(pty, prompt, "");
            line(pty, prompt, "echo 'two  three'");
            pty.types("for i in 1 2\r");
            pty.until_there_is("for");
            pty.types("echo $i\r");
            pty.until_there_is("echo");
            line(pty, prompt, "end");
            pty.types("echo a \\\r");
            pty.until_there_is("echo");
            line(pty, prompt, "b");
            pty.types("sleep 0.5\recho ahead\r");
            pty.until_result("ahead");
            line(pty, prompt, "seq 1 200 > n");
            pty.types("less -FRX n\r");
            pty.until_there_is("11");
            pty.types("q");
            pty.until(prompt);
            line(pty, prompt, "echo after");
            pty.types("bash -c 'read -rsp \"Password: \" x; echo'\r");
            pty.until("Password: ");
            pty.types("sesame\r");
            pty.until(prompt);
            line(pty, prompt, "echo last");
        },
        commands: &[
            "echo one",
            "echo 'two  three'",
            "for i in 1 2\necho $i\nend",
            "echo a \\\nb",
            "sleep 0.5",
            "echo ahead",
            "seq 1 200 > n",
            "less -FRX n",
            "echo after",
            "bash -c 'read -rsp \"Password: \" x; echo'",
            "echo last",
        ],
        hidden: &["sesame", "sesa"],
        shown: &["echo 'two  three'\r", "echo last\r"],
    },
    Scene {
        name: "single-keys-ahead",
        shells: EDITORS,
        act: |pty, prompt| {
            line(pty, prompt, "seq 1 200 > n");
            pty.types("LESS=FRX less n\r");
            pty.until_there_is("11");
            pty.types("qecho at once\r");
            pty.until_result("at once");
            // A password of a fixed length needs no Enter, and is not to be seen in what follows.
            pty.types("bash -c 'read -rsn6 -p \"Password: \" x; echo'\r");
            pty.until("Password: ");
            slowly_unseen(pty, "sesam1");
            pty.until(prompt);
            line(pty, prompt, "echo after");
        },
        commands: &[
            "seq 1 200 > n",
            "LESS=FRX less n",
            "echo at once",
            "bash -c 'read -rsn6 -p \"Password: \" x; echo'",
            "echo after",
        ],
        hidden: &["sesam", "sesa", "am1"],
        shown: &["echo after\r"],
    },
    Scene {
        name: "marked",
        shells: &["bash", "old-bash"],
        act: |pty, _| {
            line(
                pty,
                ": ",
                r"PS1='\[\e]133;A\a\]site 5 \w: \[\e]133;B\a\]'; PS0='\[\e]133;C\a\]'; PROMPT_COMMAND='printf \\e]133\;D\\a'",
            );
            marked(pty, ": ");
        },
        commands: MARKED,
        hidden: &["sesame"],
        shown: &["echo one\r"],
    },
    Scene {
        name: "marked-zsh",
        shells: &["zsh"],
        act: |pty, _| {
            line(
                pty,
                ": ",
                r"PS1=$'%{\e]133;A\a%}site 5 %~: %{\e]133;B\a%}'; preexec() { printf '\e]133;C\a' }; precmd() { printf '\e]133;D\a' }",
            );
            marked(pty, ": ");
        },
        commands: MARKED_ZSH,
        hidden: &["sesame"],
        shown: &["echo one\r"],
    },
    Scene {
        name: "prompts-only",
        shells: &["bash", "dash"],
        act: |pty, _| {
            line(pty, ": ", "PS1=$(printf '\\033]133;A\\007at: \\033]133;B\\007')");
            line(pty, "at: ", "echo one");
            line(pty, "at: ", "cat <<END\rat: home\rEND");
            line(pty, "at: ", "");
            line(pty, "at: ", "true");
        },
        commands: &[
            "PS1=$(printf '\\033]133;A\\007at: \\033]133;B\\007')",
            "echo one",
            "cat <<END\nat: home\nEND",
            "true",
        ],
        hidden: &[],
        shown: &["echo one\r"],
    },
];

const MARKED: &[&str] = &[
    r"PS1='\[\e]133;A\a\]site 5 \w: \[\e]133;B\a\]'; PS0='\[\e]133;C\a\]'; PROMPT_COMMAND='printf \\e]133\;D\\a'",
    "echo one",
    "echo one",
    "cat <<END\nsome text\nEND",
    "bash -c 'read -rsp \"Password: \" x; echo; echo \"${#x} chars\"'",
    "bash --norc --noprofile",
    "echo within",
    "exit",
    "echo last",
];

const MARKED_ZSH: &[&str] = &[
    r"PS1=$'%{\e]133;A\a%}site 5 %~: %{\e]133;B\a%}'; preexec() { printf '\e]133;C\a' }; precmd() { printf '\e]133;D\a' }",
    "echo one",
    "echo one",
    "cat <<END\nsome text\nEND",
    "bash -c 'read -rsp \"Password: \" x; echo; echo \"${#x} chars\"'",
    "bash --norc --noprofile",
    "echo within",
    "exit",
    "echo last",
];

fn marked(pty: &mut Pty, prompt: &str) {
    line(pty, prompt, "echo one");
    pty.types("\x1b[A");
    pty.until_line("echo one");
    line(pty, prompt, "");
    pty.types("ls never");
    pty.until_there_is("never");
    pty.types("\x03");
    pty.until(prompt);
    pty.types("cat <<END\r");
    pty.until("> ");
    pty.types("some text\r");
    pty.until("> ");
    pty.types("END\r");
    pty.until_there_is("some text\n");
    pty.until(prompt);
    pty.types("bash -c 'read -rsp \"Password: \" x; echo; echo \"${#x} chars\"'\r");
    pty.until("Password: ");
    pty.types("sesame\r");
    pty.until(prompt);
    line(pty, "# ", "bash --norc --noprofile");
    line(pty, "# ", "echo within");
    line(pty, prompt, "exit");
    line(pty, prompt, "echo last");
}

/// Key by key, where nothing is shown.
fn slowly_unseen(pty: &mut Pty, text: &str) {
    for c in text.chars() {
        pty.types(&c.to_string());
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
}
