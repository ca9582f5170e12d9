"""What the WebUIs of the Forge family do otherwise than A1111, laid over the embedded host.

`boot(behaving_as="forge")` (or "neo", "reforge", "classic"; `launch.py webui --behave-as forge`) gives a host in which
sampling asks a control object on a patcher, and in which extensions find the packages they know. It is a test bed for
extensions, not one of those programs: written from what they were seen to do, as far as an extension of ours meets it.
"""
