"""Shell syntax that no shell reads is found, and what is meant for a program is left alone."""

import shlex

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloudops_prefect.shell_syntax import (
    expansions,
    listed_words,
    path_expansions,
    shell_syntax,
    typed_words,
    value_expansions,
)


def in_typed(text):
    return [found.text for found in shell_syntax(typed_words(text), typed=True)]


def in_list(*words):
    return [found.text for found in shell_syntax(listed_words(words), typed=False)]


class TestTyped:
    @pytest.mark.parametrize(
        ("text", "found"),
        [
            ("cat x | wc", ["|"]),
            ("cat x|wc", ["|"]),
            ("make > log 2>&1", [">", "2>&1"]),
            ("make 2>/dev/null", ["2>/dev/null"]),
            ("make >>log", [">>log"]),
            ("make && make install", ["&&"]),
            ("make; ls", [";"]),
            ("sleep 5 &", ["&"]),
            ("cat <<EOF", ["<<EOF"]),
            ("diff <(a) <(b)", ["<(a)", "<(b)"]),
            ("find . -name x | wc -l", ["|"]),
            ("sed 's/a$/b/' f > out", [">"]),
            ("echo $HOME", ["$HOME"]),
            ('echo "$HOME/bin"', ["$HOME"]),
            ("echo ${A:-b} ${A%.x} ${#A}", ["${A:-b}", "${A%.x}", "${#A}"]),
            ("make -j$(nproc)", ["$(…)"]),
            ("tar -czf x-$(date +%F).tgz src", ["$(…)"]),
            ('tar -czf "x-$(date +%F).tgz" src', ["$(…)"]),
            ("echo `date`", ["`…`"]),
            ('sed "s/$FOO/b/" f', ["$FOO"]),
            ("docker run -e X=$Y -v $PWD:/x img sh -c 'echo $Z'", ["$Y", "$PWD"]),
            ("bash script.sh $HOME", ["$HOME"]),
            ("cp ~/x .", ["~"]),
            ("cp ~deploy/x .", ["~deploy"]),
            ("mytool --config=~/x", ["~"]),
            ("ls *.txt", ["*.txt"]),
            ("rm -rf build/*", ["build/*"]),
            ("mkdir -p {a,b}/c", ["{a,b}/c"]),
            ("python x.py data/*.csv", ["data/*.csv"]),
        ],
    )
    def test_what_a_shell_would_act_upon_is_found(self, text, found):
        assert in_typed(text) == found

    @pytest.mark.parametrize(
        "text",
        [
            r"""echo '$HOME | wc' "\$HOME" \$HOME \| ';' "a && b" '~/x'""",
            "sh -c 'echo $HOME | wc > x'",
            'bash -euo pipefail -c "a | $B"',
            "sudo sh -c 'echo $X > y'",
            "kubectl exec p -- sh -c 'echo $X'",
            "ssh host 'echo $HOME | wc'",
            "watch 'ls | wc'",
            "awk '{print $NF}' f",
            "grep -E 'a|b' f",
            "grep -E a|b f",
            'grep "foo$" f',
            "jq '.[] | select(.x > 3)' f",
            "perl -e 'print $x' f",
            "psql -c 'select $1 from t where a | b'",
            "docker inspect -f '{{range $k, $v := .X}}{{$k}}{{end}}' c",
            "docker inspect -f {{.State.Status}} c",
            "find . -name *.txt",
            "find . -name '*.txt' -exec rm {} ;",
            "git add *.py",
            "git show HEAD~1",
            "pip install requests>=2",
            "curl http://x/?a=1&b=2",
            "kubectl get pods -o jsonpath={.items[*].x}",
            "tar -czf x.tgz --exclude=*.o src",
            "cut -d '|' -f1 x",
            "rm -rf 'build/*'",
            "pytest 'test_a.py::test[x]' -k 'a or b'",
            "echo 100$ hello? 5*3",
            "date +%F",
            "[ -f x ]",
            "env FOO=bar make",
            "/opt/my.sh set x",
        ],
    )
    def test_what_is_quoted_or_meant_for_a_program_is_not(self, text):
        assert in_typed(text) == []

    @pytest.mark.parametrize(
        ("text", "kind"),
        [("cd /x && make", "builtin"), ("source x", "builtin"), ("FOO=bar make", "assignment")],
    )
    def test_what_only_a_shell_can_run_is_found(self, text, kind):
        [found] = shell_syntax(typed_words(text), typed=True)
        assert (found.position, found.kind) == (0, kind)

    def test_the_value_of_an_assignment_is_not_shown(self):
        assert in_typed("TOKEN=hunter2 make") == ["TOKEN=…"]

    def test_quotes_that_do_not_match_are_not_looked_at(self):
        assert typed_words("echo 'a") == []

    @given(st.text("ab'\"\\ \t\n\u00a0$|~*{}();#", max_size=20))
    def test_each_word_has_what_is_live_in_it(self, text):
        try:
            words = shlex.split(text)
        except ValueError:
            words = []
        assert [word.text for word in typed_words(text)] == words
        list(shell_syntax(typed_words(text), typed=True))


class TestListed:
    @pytest.mark.parametrize(
        ("words", "found"),
        [
            (("cat", "x", "|", "wc"), ["|"]),
            (("make", "&&", "ls"), ["&&"]),
            (("make", "2>&1"), ["2>&1"]),
            (("echo", "a", ">", "f"), [">"]),
            (("jq", ".", "f", "|", "wc"), ["|"]),
            (("sleep", "5", "&"), ["&"]),
            (("echo", "$HOME"), ["$HOME"]),
            (("echo", "$home", "${home}/x"), ["$home", "${home}"]),
            (("docker", "run", "-e", "X=$X", "img"), ["$X"]),
            (("git", "commit", "-m", "Deploy $VERSION"), ["$VERSION"]),
            (("awk", "{print $NF}", "$HOME/x"), ["$HOME"]),
            (("make", "X=$(Y)", "D=$HOME/x"), ["$HOME"]),
            (("psql", "$DATABASE_URL"), ["$DATABASE_URL"]),
            (("echo", "$(date)", "`date`"), ["$(…)", "`…`"]),
            (("cp", "~/x", "."), ["~"]),
            (("rm", "-f", "*.log"), ["*.log"]),
        ],
    )
    def test_what_a_shell_would_act_upon_is_found(self, words, found):
        assert in_list(*words) == found

    @pytest.mark.parametrize(
        "words",
        [
            ("sh", "-c", "echo $X | wc"),
            ("bash", "-o", "pipefail", "-c", "a | b"),
            ("awk", "{print $NF}", "f"),
            ("sed", "-n", "$p", "f"),
            ("grep", "-c", ">", "x.fa"),
            ("cut", "-d", "|", "-f1"),
            ("sqlite3", "-separator", "|", "x"),
            ("tr", ";", ","),
            ("find", ".", "-exec", "rm", "{}", ";"),
            ("test", "a", "<", "b"),
            ("expr", "1", "|", "2"),
            ("printf", "%s|%s", "a"),
            ("jq", ".[] | $x", "f"),
            ("envsubst", "$HOME"),
            ("mongosh", "--eval", "db.x.update({$set: 1})"),
            ("python3", "-c", "print('$HOME | x')"),
            ("git", "commit", "-m", "use `x` in $y"),
            ("x", "${aws:username}", "${AWS::Region}", "${{ a }}", "$${x}", "$$x", "${a.b}"),
            ("tar", "-xf", "a", "--wildcards", "*.x"),
            ("rsync", "--exclude", "*.o", "a", "b"),
            ("mytool", "*.csv"),
        ],
    )
    def test_what_is_meant_for_a_program_is_not(self, words):
        assert in_list(*words) == []


class TestAws:
    @pytest.mark.parametrize(
        ("text", "found"),
        [
            ("s3 ls $BUCKET", ["$BUCKET"]),
            ("s3 ls | wc", ["|"]),
            ("s3 cp *.txt s3://b/", ["*.txt"]),
            ("s3 cp ~/x s3://b", ["~"]),
            ("sts get-caller-identity --query Account > out", [">"]),
            ("ec2 describe-instances --query 'R[?State==`running`] | [0]'", []),
            ('ec2 describe-instances --query "R[?State==`running`]"', []),
            ("ec2 describe-instances --query=R[?State==`running`]", []),
            ("ec2 describe-instances --filters Name=tag:x,Values=web-*", []),
            ("s3 cp x s3://b/ --exclude * --include *.txt", []),
            ("s3 rm s3://b/* --recursive", []),
            ("ec2 run-instances --user-data 'echo $HOME > x'", []),
        ],
    )
    def test_arguments_of_the_aws_cli(self, text, found):
        words = [*listed_words(["aws"]), *typed_words(text)]
        assert [one.text for one in shell_syntax(words, typed=True)] == found


class TestValues:
    @pytest.mark.parametrize(
        ("name", "value", "found"),
        [
            ("PATH", "/opt/bin:$PATH", ["$PATH"]),
            ("PATH", "~/bin:/bin:~/x", ["~"]),
            ("A", "${B:-c}", ["${B:-c}"]),
            ("A", "$b", ["$b"]),
            ("A", "$(date)", ["$(…)"]),
            ("KUBECONFIG", "~/.kube/config", ["~"]),
            ("AWS_CONFIG_FILE", "~/.aws/config", []),
            ("LOG_FORMAT", "$remote_addr $TIME", []),
            ("GIT_SSH_COMMAND", "ssh -i $KEY", []),
            ("PS1", "$PWD", []),
            ("A", "foo$ $1 a$b ~ *.txt a|b $$x ${{ x }}", []),
        ],
    )
    def test_variables(self, name, value, found):
        assert value_expansions(name, value) == found

    @pytest.mark.parametrize(
        ("path", "found"),
        [
            ("/srv/$STAGE/${X}", ["$STAGE", "${X}"]),
            ("logs/$(date +%F).log", ["$(…)"]),
            ("~deploy/x", ["~deploy"]),
            ("build/*", ["build/*"]),
            ("/srv/a b", []),
        ],
    )
    def test_paths(self, path, found):
        assert path_expansions(path) == found

    def test_text(self):
        assert expansions("a $b ${c} $(d) `e` \\$f $$g") == ["$b", "${c}", "$(…)", "`…`"]
