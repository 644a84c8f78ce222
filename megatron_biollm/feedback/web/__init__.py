"""The pages: server-rendered, with one stylesheet and one small script from this package."""
